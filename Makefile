# make study    runs the notebooks in order and prints the results table
#     RUN=name                 a study of its own: results/name, data/name
#     CORPUS=/path             another corpus; results/name and data/name-dataset, named after its folder unless RUN is given
#     PARAMS=params/x.yaml     other parameters
#     SET="name=value ..."     single ones, values as in yaml
#     FROM=03                  resumes there
# make test     ruff, pytest and the notebooks
# make lab      JupyterLab in notebooks/
# make format   ruff's formatter and fixes; notebooks without their outputs, but for those that are kept
# make reference    results/demo (or RUN), seed* and, if it is there, pretrained become the committed reference, README shows it
#     MIXED=1                  although files were made by several commits or with uncommitted changes
# make lock     requirements.lock anew, from the newest versions that pyproject.toml allows
# PYTHON=/path/to/python3.12 chooses the Python (>= 3.11) that .venv is made from.

PY := .venv/bin/python
INSTALLED := .venv/.installed
PIP := $(PY) -m pip --disable-pip-version-check
PYTHON ?= $(or $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done), $(error No Python >= 3.11 with venv was found: name one by PYTHON=))
PARAMS ?= params/demo.yaml

.PHONY: study test lab format lock reference

# By the environment, where neither make nor the shell reads quotes, spaces or dollars.
study: export STUDY_RUN = $(value RUN)
study: export STUDY_CORPUS = $(value CORPUS)
study: export STUDY_SET = $(value SET)
study: $(INSTALLED)
	$(PY) -m i2m_lib.study "$(PARAMS)" $(if $(FROM),--from $(FROM))

test: $(INSTALLED)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pytest

lab: $(INSTALLED)
	$(PY) -m jupyterlab notebooks

format: $(INSTALLED)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	$(PY) -m nbstripout --keep-count --keep-id notebooks/*.ipynb

reference: $(INSTALLED)
	$(PY) -m i2m_lib.study.reference $(or $(RUN),demo) $(if $(MIXED),--mixed)

# Only Linux has the packages of CUDA. setuptools comes from the lock, so nothing else is fetched.
lock: $(INSTALLED)
	$(PIP) install --upgrade --upgrade-strategy eager --no-build-isolation -e '.[dev]'
	$(PIP) freeze --all --exclude pip --exclude-editable \
		| sed -E 's/^(nvidia-|cuda-|triton=).*/& ; sys_platform == "linux"/' \
		| LC_ALL=C sort -f -o requirements.lock
	touch $(INSTALLED)

# An environment without a working pip is one that was left half made.
$(INSTALLED): requirements.lock pyproject.toml
	$(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(PIP) install -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	touch $@
