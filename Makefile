# A thin front over CMake. `make`, `make demo`, `make test`, `make bench` are all a user needs.
JOBS ?= $(shell nproc)
MODEL ?= models/tiny

.PHONY: all setup demo test bench check format clean

all: setup build/build.ninja
	@cmake --build build -j $(JOBS) --target edgewise_tool

setup:
	@scripts/setup.sh

build/build.ninja: CMakeLists.txt CMakePresets.json
	@cmake --preset release -Wno-dev >/dev/null

# From nothing to an answer: installs, builds, asks the model in the box.
demo: all
	@build/edgewise run $(MODEL) -p "What is the capital of France?" --greedy

# Everything CI runs; see scripts/test.sh --help for parts of it.
test:
	@scripts/setup.sh --test
	@scripts/test.sh

bench: setup build/build.ninja
	@scripts/bench.sh $(ARGS)

check:
	@scripts/check.sh

format:
	@clang-format -i $$(git ls-files '*.c' '*.h')

clean:
	@rm -rf build build-*
