"""Three kinds of workers: threads and the event loop are in the server's process, process workers are not."""

from server_func import count_primes, first_line, greet

line, server = first_line("server.py").result(timeout=20)
print("thread: ", line[:36])

primes, process = count_primes(1000).result(timeout=20)
print("process:", primes, "primes; in another process:", process != server)

greeting, process = greet("Ada").result(timeout=20)
print("async:  ", greeting, "- in another process:", process != server)
