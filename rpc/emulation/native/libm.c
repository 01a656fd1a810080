// What networks take of libm and the compiler's own library has not, for a microcontroller without an operating
// system. In double and by the functions that there are, so that the float is right to its last bit or the one before.
#include <stdint.h>

double exp2(double x);
double log2(double x);
double sqrt(double x);
double fabs(double x);

static int is_odd(float y) { return fabs(y) < 0x1p24 && (float)(int32_t)y == y && (int32_t)y & 1; }

static int is_whole(float y) { return fabs(y) >= 0x1p23 || (float)(int32_t)y == y; }

float powf(float x, float y) {
  if (y == 0 || x == 1) return 1;
  if (x != x || y != y) return x + y;
  double size = fabs(x) == 1 ? 1 : exp2((double)y * log2(fabs(x)));
  int negative = __builtin_signbit(x) != 0;
  if (negative && x != 0 && !__builtin_isinf(x) && !is_whole(y)) return __builtin_nanf("");
  return (float)(negative && is_odd(y) ? -size : size);
}

// Of 0 to tan(pi / 8), by the series.
static double arc(double x) {
  double sum = 0;
  for (int k = 25; k > 0; k -= 2) sum = 1.0 / k - x * x * sum;
  return x * sum;
}

static const double kQuarter = 0.78539816339744830962;  // of pi

static double arctangent(double x) {
  double size = fabs(x), found;
  if (size > 2.4142135623730950) {
    found = 2 * kQuarter - arc(1 / size);
  } else if (size > 0.41421356237309505) {
    double rest = (size - 1) / (size + 1);
    found = rest < 0 ? kQuarter - arc(-rest) : kQuarter + arc(rest);
  } else {
    found = arc(size);
  }
  return __builtin_copysign(found, x);
}

static double arcsine(double x) { return fabs(x) == 1 ? 2 * kQuarter * x : arctangent(x / sqrt((1 - x) * (1 + x))); }

float atanf(float x) { return x != x ? x : (float)arctangent(x); }
float asinf(float x) { return fabs(x) <= 1 ? (float)arcsine(x) : __builtin_nanf(""); }
float acosf(float x) { return fabs(x) <= 1 ? (float)(2 * kQuarter - arcsine(x)) : __builtin_nanf(""); }
