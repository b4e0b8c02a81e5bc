# `demo` and `test` work in a fresh clone with a Rust toolchain and a C compiler; what others need stands beside them.

CARGO ?= cargo
RUN = $(CARGO) run --release --locked --quiet --
RESULTS ?= results
REPORT ?= reports/latest
SCALE ?= full
PYTHON ?= python3
BOOK ?= target/docs
INCEPTION = $(if $(WEIGHTS),--weights $(WEIGHTS))

.PHONY: demo test check check-aarch64 fmt clippy golden bench bench-peer docs table report reports gate reproduce-cifar10 reproduce-stl10 reproduce-celebahq

## The main job in small: four critics on the embedded data set. A second call goes on where the first was stopped.
demo:
	$(CARGO) build --release --locked
	$(RUN) run experiments/demo.yaml --scale smoke --resume -o $(RESULTS)

## All tests. Those that need data read PGN_BENCH_DATA and PGN_BENCH_GOLDEN, and say so when these are not set.
test:
	$(CARGO) test --release --locked

## What CI asks of the code, cheapest first. The kernel proofs run once for each instruction set, and the device's code on an
## emulated device (which needs g++): operators with channels last and first, critics, generators and steps in every precision.
check: fmt clippy
	$(CARGO) test --release --locked
	PGN_BENCH_ISA=avx2 $(CARGO) test --release --locked --lib nn::
	PGN_BENCH_ISA=portable $(CARGO) test --release --locked --lib nn::
	PGN_BENCH_DEVICE=emulated $(CARGO) test --release --locked --lib
	PGN_BENCH_DEVICE=emulated:first $(CARGO) test --release --locked --lib nn::
	PGN_BENCH_DEVICE=emulated $(CARGO) test --release --locked --test golden
	for precision in f32 tf32 bf16; do env -u PGN_BENCH_GOLDEN PGN_BENCH_DEVICE=emulated PGN_BENCH_PRECISION=$$precision \
	  $(CARGO) test --release --locked --test golden || exit; done

## The kernel proofs and the small golden files on aarch64's NEON, in an emulator; tests/aarch64/run.sh says what that needs.
check-aarch64:
	CARGO="$(CARGO)" tests/aarch64/run.sh

fmt:
	$(CARGO) fmt --check

clippy:
	$(CARGO) clippy --release --locked --all-targets -- -D warnings

## Critics, generators and training steps against PyTorch's double backward (PGN_BENCH_GOLDEN: folder of reference files).
golden:
	$(CARGO) test --release --locked --test golden

## Rates of the convolution kernels at the networks' shapes, as shares of the matrix product's, and whole updates.
bench:
	$(CARGO) bench --locked --bench kernels

## The same work in PyTorch, torch-fidelity or scipy and here, in turn. The peers go into a throw-away environment.
## The metrics need WEIGHTS, a safetensors file of the Inception network.
bench-peer:
	test -d target/peer || { $(PYTHON) -m venv target/peer && \
	  target/peer/bin/pip install torch torchvision numpy scipy safetensors torch-fidelity; }
	$(CARGO) build --release --locked --examples
	target/peer/bin/python benches/peer/compare.py --binaries target/release/examples $(INCEPTION)
	target/peer/bin/python benches/peer/compare.py --binaries target/release/examples --kernels

## The pages of reference that are made of the program (a test holds them to it), then, where there is mdBook (`cargo install --locked
## mdbook@0.5.4`), all pages as a site in BOOK/book. They are laid out there as they lie here, so that links between them hold.
docs:
	$(RUN) reference .
	@command -v mdbook || { echo "no site: mdBook is not installed"; exit 1; }
	rm -rf $(BOOK)
	mkdir -p $(BOOK)/src
	git ls-files -z --cached --others --exclude-standard -- '*.md' '*.svg' '*.png' '*.csv' '*.yaml' '*.json' | \
	  xargs -0 cp --parents -t $(BOOK)/src
	sed 's|(|(docs/|; s|(docs/\.\./|(|' docs/SUMMARY.md > $(BOOK)/src/SUMMARY.md
	cp docs/book.toml $(BOOK)
	mdbook build $(BOOK)

## The report on everything in RESULTS: tables, claims, curves and pictures, as HTML, Markdown, LaTeX and CSV.
report:
	$(RUN) report $(RESULTS) -o $(REPORT)

## The reports that are kept in git, again from their rows: the same to the byte, unless the program says something else now.
reports:
	for report in reports/*/data; do $(RUN) report $$report -o $$(dirname $$report) || exit; done

## The gates of baselines/gates.yaml on the demo's results.
gate:
	$(RUN) gate baselines/gates.yaml --results $(RESULTS)

## The comparison of everything in RESULTS.
table:
	$(RUN) table $(RESULTS)

## Table 2 of the paper and its conditional experiment. SCALE=smoke is minutes on two cores; full is the paper's number of
## steps. WEIGHTS: Inception weights, where `pgn-bench fetch inception` cannot get the official ones.
reproduce-cifar10:
	$(RUN) run experiments/cifar10.yaml --scale $(SCALE) --resume -o $(RESULTS) $(INCEPTION)
	$(RUN) run experiments/cifar10-conditional.yaml --scale $(SCALE) --resume -o $(RESULTS) $(INCEPTION)

## Table 4 of the paper.
reproduce-stl10:
	$(RUN) run experiments/stl10.yaml --scale $(SCALE) --resume -o $(RESULTS) $(INCEPTION)

## Table 5 of the paper.
reproduce-celebahq:
	$(RUN) run experiments/celebahq128.yaml --scale $(SCALE) --resume -o $(RESULTS) $(INCEPTION)
	$(RUN) run experiments/celebahq256.yaml --scale $(SCALE) --resume -o $(RESULTS) $(INCEPTION)
