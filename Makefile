# `make run` and `make test` set everything up by themselves; `make help` lists the rest.
.DEFAULT_GOAL := help
BIN := .venv/bin
export PYTHON

.PHONY: help setup run demo test axe-report test-faults test-networks test-client test-fuzz test-hostile test-big-upload lint format migration-check migration openapi settings-doc client-docs reference test-docs \
	peers bench-method bench-others bench-gpu bench-speed bench-report bench-headline bench-service bench-batch bench-room bench-finetune bench-latency pictures clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

setup: ## .venv with the exact pins, and the browser packages; quick when nothing changed
	@scripts/setup.sh

run: setup ## serve on 127.0.0.1:${PORT:-8000} until Ctrl-C; everything lies in var/
	@exec $(BIN)/basisconv serve --stop-with-parent

demo: setup ## the main job on the bundled example, from the command line
	@exec $(BIN)/basisconv demo

test: setup ## all tests that take no minutes each; about a quarter of an hour on 2 cores; ARGS go to pytest
	@exec scripts/test.sh $(ARGS)

axe-report: setup ## what axe-core finds on every page; writes benchmarks/results/accessibility.md
	BASISCONV_AXE_REPORT=benchmarks/results/accessibility.md OMP_NUM_THREADS=1 \
		$(BIN)/python -m pytest -q tests/e2e/test_accessibility.py $(ARGS)

test-faults: setup ## kill everything in every stage of a job; writes benchmarks/results/faults.md
	@rm -rf build/faults
	BASISCONV_FAULTS_TABLE=build/faults OMP_NUM_THREADS=1 timeout --kill-after=30 1800 \
		$(BIN)/python -m pytest -q -n 2 tests/faults tests/run tests/e2e/test_main_path.py $(ARGS)
	$(BIN)/python -m tests.faults.rig.table build/faults benchmarks/results/faults

test-big-upload: setup ## 4 GB both ways through the web process: its peak memory, and how others are served meanwhile
	@exec timeout --kill-after=30 3000 $(BIN)/python -m pytest -q -s -m slow tests/uploads/test_large.py $(ARGS)

test-networks: setup ## the method on the trained networks of the shared data, and more architectures of Hugging Face
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow tests/method tests/formats $(ARGS)

test-client: setup ## the client's wheel in an empty environment (no torch), and networks of every other kind from file to file
	@exec timeout --kill-after=30 900 $(BIN)/python -m pytest -q -m slow tests/client $(ARGS)

test-fuzz: setup ## hundreds of requests to each operation of the REST interface; keeps what came of it
	BASISCONV_FUZZ_EXAMPLES=$${EXAMPLES:-200} BASISCONV_FUZZ_SUMMARY=benchmarks/results/schemathesis.md \
		$(BIN)/python -m pytest -q --timeout=900 tests/api/test_fuzz.py $(ARGS)

test-hostile: setup ## every hostile file through the service, then long mutation of valid ones; writes benchmarks/results/hostile.md
	BASISCONV_HOSTILE_ANSWERS=benchmarks/results OMP_NUM_THREADS=1 timeout --kill-after=30 3000 \
		$(BIN)/python -m pytest -q -m slow tests/hostile/test_corpus.py
	BASISCONV_HOSTILE_EXAMPLES=$${EXAMPLES:-300} OMP_NUM_THREADS=1 timeout --kill-after=30 6000 \
		$(BIN)/python -m pytest -q -n 2 --timeout=3000 tests/hostile/test_mutations.py $(ARGS)

bench-headline: setup ## 5x fewer operations and 18x fewer learnable parameters at once on CIFAR-100; ARGS go to the script
	$(BIN)/python benchmarks/cifar100_headline.py $(ARGS)

bench-service: setup ## the service under load, beside bare uvicorn and bare Celery; five minutes on a calm machine
	$(BIN)/python -m benchmarks.service $(ARGS)

bench-room: setup ## how much room uploads, jobs, rows, messages and log lines take
	$(BIN)/python -m benchmarks.room $(ARGS)

bench-batch: setup ## a batch of 200 small jobs through the whole service; a quarter of an hour on a calm machine
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.batch $(ARGS)

bench-finetune: setup ## fine-tuning's images per second beside a bare PyTorch loop's
	$(BIN)/python -m benchmarks.finetune_throughput $(ARGS)

bench-latency: setup ## time against operations on VGG16, ResNet-18 and ResNet-56; half an hour on one core
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.latency $(ARGS)

lint: setup ## ruff, mypy strict, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## ruff's fixes and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

migration-check: setup ## migrations up, down, up; no difference to the tables in the code
	$(BIN)/python scripts/migrations.py check

migration: setup ## write a migration from that difference: make migration MESSAGE="add batches"
	$(BIN)/python scripts/migrations.py new "$(MESSAGE)"

openapi: setup ## docs/openapi.json from the code
	@mkdir -p build
	$(BIN)/python -m app.openapi >build/openapi.json && mv build/openapi.json docs/openapi.json

settings-doc: setup ## docs/settings.md from the code
	$(BIN)/python scripts/settings_doc.py

client-docs: setup ## docs/command-line.md, docs/client.md and the example's notebook, from the code
	$(BIN)/python scripts/client_doc.py
	$(BIN)/python scripts/notebook.py

reference: setup ## docs/reference from the code: REST, command line, options, errors, reasons
	$(BIN)/python scripts/reference_doc.py

test-docs: setup ## every example of the documentation, also those that wait for jobs; ten minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/docs $(ARGS)

peers: setup ## build/peers: the methods that the benchmarks compare with, from their packages
	@scripts/peers.sh

bench-method: peers ## peers and us on CIFAR-10 ResNets, CPU, two hours on one core; ARGS="--resume" goes on
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.method --suite cpu $(ARGS)
	$(BIN)/python -m benchmarks.report

bench-others: peers ## nets on which nothing was chosen, calibration without images, foretold losses; an hour and a half on one core
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.method --suite others $(ARGS)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.method --suite datafree $(ARGS)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.foretold
	$(BIN)/python -m benchmarks.report

bench-gpu: peers ## the same code with long fine-tuning, on a GPU; trains its VGG16 first (never run yet)
	$(BIN)/python -m benchmarks.train_vgg16 --device cuda
	$(BIN)/python -m benchmarks.method --suite gpu --device cuda --threads 4 $(ARGS)
	$(BIN)/python -m benchmarks.report

bench-speed: peers ## seconds and memory on a network of ResNet-50's size, beside two peers
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.speed $(ARGS)

bench-report: setup ## tables and plots again, from the raw data alone
	$(BIN)/python -m benchmarks.report

pictures: setup ## docs/images/method-*.svg, drawn from what the library measures
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.pictures

clean: ## remove what set-up made; var/ with all data stays
	rm -rf .venv node_modules app/web/static/vendor build test-results *.egg-info client/build client/*.egg-info \
		.mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
