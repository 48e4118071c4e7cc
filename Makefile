# shoal: thin front of CMake. `make run` and `make test` also install what is missing (see tools/setup).
PREFIX ?= /usr/local
MODEL ?=
BENCH ?=

.PHONY: run build test test-long bench fuzz format install clean minnow

run: build
	@exec build/shoal serve $(MODEL)

build:
	@tools/setup run
	@tools/build release

test:
	@tools/setup test
	@tools/build release --tests
	@tools/run_tests

test-long:
	@tools/setup test
	@tools/test_long

bench:
	@tools/setup bench
	@tools/bench $(BENCH)

fuzz:
	@tools/setup test
	@tools/fuzz

format:
	@git ls-files '*.c' '*.h' | xargs clang-format -i

install: build
	@cmake --install build/release --prefix $(PREFIX)

clean:
	@rm -rf build

# Trains the built-in model anew (hours); never part of the others.
minnow:
	@tools/minnow/make
