"""A graph of jobs on this machine's cores, each a command in a process of its own, and what asks for one."""
