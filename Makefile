# Every target makes its own environment in .venv; nothing is installed outside it.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test slow check gpu sanitize bench clean

demo: .venv/.demo  ## The shipped voice speaks: demo/demo.wav and demo/demo.png
	$(BIN)/fastglow demo -o demo

test: .venv/.dev  ## The tests that continuous integration runs
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile

slow: .venv/.dev  ## The long tests (20,000 fuzz cases)
	$(BIN)/python -m pytest -m slow

check: .venv/.dev  ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

gpu: .venv/.dev  ## The tests that need an NVIDIA GPU
	$(BIN)/python -m pytest -m gpu

sanitize: .venv/.dev  ## The fused kernels under compute-sanitizer (an H100 or H200)
	PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck --report-api-errors no \
		--error-exitcode 1 $(BIN)/python -m pytest -m gpu tests/kernels/test_hopper_flow.py \
		-k "few_layers or smaller_group or many_tiles"

bench: .venv/.bench  ## CPU speed against PyTorch, ONNX Runtime and OpenVINO
	$(BIN)/fastglow bench --device cpu --channels 64 --peers pytorch,onnxruntime,openvino \
		--json benchmarks/results

clean:
	rm -rf .venv demo build dist

.venv/.python:
	$(PYTHON) -m venv .venv
	touch $@

.venv/.demo: .venv/.python pyproject.toml
	$(PIP) -e '.[plot]'
	touch $@

.venv/.dev: .venv/.python pyproject.toml constraints.txt
	$(PIP) -e '.[dev]'
	touch $@

.venv/.bench: .venv/.dev
	$(PIP) -e '.[dev,bench]'
	touch $@
