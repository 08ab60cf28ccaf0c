"""Key derivation with two other implementations of scrypt, for the benchmark in format.rs.

Reads one name per line from standard input, `openssl` (Python's hashlib) or `libsodium` (PyNaCl),
derives the master key of Threema's published test vector, and prints a line: the duration in
nanoseconds and the key in hexadecimal digits.
"""

import hashlib
import sys
import time

import nacl.bindings

PASSWORD, SALT = b"shootdeathstar", b"ECHOECHO"
N, R, P, LENGTH, MEMORY = 65536, 8, 1, 64, 128 << 20


def openssl():
    return hashlib.scrypt(PASSWORD, salt=SALT, n=N, r=R, p=P, dklen=LENGTH, maxmem=MEMORY)


def libsodium():
    return nacl.bindings.crypto_pwhash_scryptsalsa208sha256_ll(
        PASSWORD, SALT, N, R, P, LENGTH, MEMORY
    )


for line in sys.stdin:
    derive = {"openssl": openssl, "libsodium": libsodium}[line.strip()]
    started = time.perf_counter_ns()
    key = derive()
    took = time.perf_counter_ns() - started
    print(took, key.hex(), flush=True)
