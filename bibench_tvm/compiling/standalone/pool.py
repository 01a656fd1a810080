"""The pool of threads that lies beside a library for C, as source: who has one of their own leaves it out."""

from __future__ import annotations


def pool_files(name: str) -> dict[str, str]:
    """File -> text."""
    texts = {f"{name}_threads.h": _HEADER, f"{name}_threads.c": _SOURCE}
    return {
        file: text.replace("@name@", name).replace("@NAME@", name.upper()) for file, text in texts.items()
    }


_HEADER = """\
/* A pool of POSIX threads for @name@_run_threads, in @name@_threads.c. Optional; link with -pthread. */
#ifndef @NAME@_THREADS_H
#define @NAME@_THREADS_H

#include "@name@.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A pool of so many threads, at least 1. The one that runs the network is one of them; the others sleep from
 * one shared part to the next. NULL where there is no memory or no thread to be had. One run at a time may
 * use it. */
const struct @name@_pool *@name@_threads_start(int32_t threads);

/* Ends the threads. Nothing may run on the pool any more. */
void @name@_threads_stop(const struct @name@_pool *pool);

#ifdef __cplusplus
}
#endif

#endif
"""

_SOURCE = """\
#include "@name@_threads.h"

#include <pthread.h>
#include <stdlib.h>

struct crew {
  struct @name@_pool pool; /* first, so that its address is that of the crew */
  pthread_mutex_t lock;
  pthread_cond_t begun, ended;
  void (*task)(void *data, int32_t i, int32_t threads);
  void *data;
  int32_t next, left; /* the first share that nobody has taken; how many are not done */
  int leave;
  int32_t started;
  pthread_t others[];
};

/* Does shares until all are taken. The lock is held before and after. */
static void work(struct crew *crew) {
  while (crew->next < crew->pool.threads) {
    int32_t i = crew->next++;
    pthread_mutex_unlock(&crew->lock);
    crew->task(crew->data, i, crew->pool.threads);
    pthread_mutex_lock(&crew->lock);
    if (!--crew->left) pthread_cond_signal(&crew->ended);
  }
}

static void *live(void *argument) {
  struct crew *crew = argument;
  pthread_mutex_lock(&crew->lock);
  while (!crew->leave) {
    work(crew);
    if (!crew->leave) pthread_cond_wait(&crew->begun, &crew->lock);
  }
  pthread_mutex_unlock(&crew->lock);
  return NULL;
}

static void run(void *self, void (*task)(void *data, int32_t i, int32_t threads), void *data,
    int32_t threads) {
  struct crew *crew = self;
  pthread_mutex_lock(&crew->lock);
  crew->task = task;
  crew->data = data;
  crew->next = 0;
  crew->left = threads;
  pthread_cond_broadcast(&crew->begun);
  work(crew);
  while (crew->left) pthread_cond_wait(&crew->ended, &crew->lock);
  pthread_mutex_unlock(&crew->lock);
}

const struct @name@_pool *@name@_threads_start(int32_t threads) {
  if (threads < 1) return NULL;
  struct crew *crew = calloc(1, sizeof *crew + (size_t)(threads - 1) * sizeof(pthread_t));
  if (!crew) return NULL;
  pthread_mutex_init(&crew->lock, NULL);
  pthread_cond_init(&crew->begun, NULL);
  pthread_cond_init(&crew->ended, NULL);
  crew->pool = (struct @name@_pool){run, crew, threads};
  crew->next = threads;
  for (; crew->started < threads - 1; crew->started++)
    if (pthread_create(&crew->others[crew->started], NULL, live, crew)) {
      @name@_threads_stop(&crew->pool);
      return NULL;
    }
  return &crew->pool;
}

void @name@_threads_stop(const struct @name@_pool *pool) {
  struct crew *crew = pool->self;
  pthread_mutex_lock(&crew->lock);
  crew->leave = 1;
  pthread_cond_broadcast(&crew->begun);
  pthread_mutex_unlock(&crew->lock);
  for (int32_t i = 0; i < crew->started; i++) pthread_join(crew->others[i], NULL);
  pthread_cond_destroy(&crew->ended);
  pthread_cond_destroy(&crew->begun);
  pthread_mutex_destroy(&crew->lock);
  free(crew);
}
"""
