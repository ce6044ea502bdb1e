# One line says what each target does; `make` lists them. Every target that needs it sets up .venv first, once.
.DEFAULT_GOAL := help
.PHONY: help setup distill vocoder sing eval push test test-all check bench docs clean  # some are folders too

PYTHON  ?= python3
RECIPE  ?= quickstart
SINGER  ?= embedded
LYRICS  ?= row row row your boat
TAKE    ?= take.wav
VENV    := .venv/bin/python
READY   := .venv/.ready
# one process for each GPU, which all do one run; port 0: any that is free
LAUNCH   = $(if $(GPUS),-m accelerate.commands.launch --num_processes "$(GPUS)" --num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0 $(if $(filter-out 0 1,$(GPUS)),--multi_gpu) $(if $(FSDP),--use_fsdp --fsdp_version 2))

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "make %-10s %s\n", $$1, $$2}'

$(READY): pyproject.toml setup.sh
	PYTHON="$(PYTHON)" ./setup.sh
	@touch $@

setup: $(READY)  ## make .venv (every other target does this by itself when it is needed)

distill: $(READY)  ## run a recipe from songs to a singer: RECIPE=quickstart [SONGS=FOLDER] [OUT=FOLDER] [SET="a.b=c ..."] [GPUS=4 [FSDP=1]] [ENGINE=ray]
	$(VENV) $(LAUNCH) -m distill run "$(RECIPE)" $(if $(SONGS),--songs "$(SONGS)") $(if $(OUT),--out "$(OUT)") $(if $(ENGINE),--engine "$(ENGINE)") $(foreach change,$(SET),--set "$(change)")

vocoder: $(READY)  ## train a vocoder head for a codec: RECIPE=vocoder-embedded [SONGS=FOLDER] [OUT=FOLDER] [SET="a.b=c ..."]
	$(VENV) -m distill run "$(if $(filter quickstart,$(RECIPE)),vocoder-embedded,$(RECIPE))" $(if $(SONGS),--songs "$(SONGS)") $(if $(OUT),--out "$(OUT)") $(foreach change,$(SET),--set "$(change)")

sing: $(READY)  ## sing: SINGER=embedded LYRICS="..." [STYLE="folk, calm"] [SEED=7] [TAKE=take.wav]
	$(VENV) -m distill sing "$(SINGER)" "$(LYRICS)" $(if $(STYLE),--style "$(STYLE)") $(if $(SEED),--seed "$(SEED)") --save "$(TAKE)"

eval: $(READY)  ## judge a singer on held-out lines: SINGER=embedded [TEACHER=...] [OUT=FOLDER]
	$(VENV) eval/run.py "$(SINGER)" $(if $(TEACHER),--teacher "$(TEACHER)") $(if $(OUT),--out "$(OUT)")

push: $(READY)  ## send a merged folder to the hub: FOLDER=... REPO=you/name [DRY_RUN=1] [PUBLIC=1]
	$(VENV) -m distill push "$(FOLDER)" "$(REPO)" $(if $(DRY_RUN),--dry-run) $(if $(PUBLIC),--public)

test: $(READY)  ## the tests (minutes)
	$(VENV) -m pytest -q -m "not slow"

test-all: $(READY)  ## the tests, the slow ones too
	$(VENV) -m pytest -q

check: $(READY)  ## style and types
	$(VENV) -m ruff check .
	$(VENV) -m ruff format --check .
	$(VENV) -m mypy distill

bench: $(READY)  ## speed and memory, side by side; prints tables [SONGS=MANIFEST: the benches of curation too]
	$(VENV) bench/loss.py
	$(VENV) bench/vocoder.py
	$(VENV) bench/encode.py
	$(if $(SONGS),for script in alignment music structure duplicates; do $(VENV) bench/$$script.py --songs "$(SONGS)" || exit; done)

# pip gets the extra's one line alone: resolving the whole project again would bring back the protobuf that setup.sh replaced
docs: $(READY)  ## the API as pages made from the docstrings: docs/api/index.html
	$(VENV) -c "import pdoc" 2>/dev/null || $(VENV) -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'])" | xargs $(VENV) -m pip install --quiet
	$(VENV) docs/api.py

clean:  ## remove .venv, caches, docs/api and eval/reports; adapters/ and recipes stay
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache eval/reports docs/api
	find distill tests eval bench docs -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
