# Everything for a fresh clone on a bare machine. Needs make and Python 3.11, 3.12 or 3.13 with pip.
#   make demo    the main job once, end to end, and nothing leaves the machine
#   make test    all tests; ARGS="-k word" for some of them, WORKERS=0 for one after the other, and PROVE=1 to insist that
#                the stock packages fail the tests of the hazards, which some of them do by chance only
#   make cluster a RabbitMQ cluster of three nodes, of which one is killed while mail flows
#   make run     the service as config.yaml has it, with a broker of its own if there is none
#   make lint    ruff and mypy
#   make bench   the benchmarks; PEERS=1 beside what others would use, which is installed for it
#   make faults  every kind of fault at length, a soak, and the count of all mails; ARGS="--seed 7 kill-all" (40 minutes)
#   make fuzz    hostile input, 30 s for everything that reads any; ARGS="--seconds 600 --seed 1 message" for other times
#   make lock    renew requirements.lock
PYTHON ?= python3
VENV := .venv
WORKERS ?= 2
# absolute, so that the programs started with it find it from any folder
BIN := $(CURDIR)/$(VENV)/bin
PIP := $(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check --quiet

.PHONY: demo run test cluster lint bench faults fuzz lock clean
.DEFAULT_GOAL := demo

demo: $(VENV)/installed
	$(BIN)/python -m mail_service.demo

run: $(VENV)/installed
	$(BIN)/python -m mail_service.local.rabbitmq $(BIN)/mail-service run --config config.yaml $(ARGS)

test: $(VENV)/installed
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile $(ARGS)

# three RabbitMQ nodes of which one is killed: a minute, and too much beside other tests
cluster: $(VENV)/installed
	CLUSTER=1 $(BIN)/python -m pytest tests/cluster $(ARGS)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# with PEERS=1 beside others; they are not in the lock, since nothing else needs them
bench: $(VENV)/installed
	$(if $(PEERS),$(PIP) install --constraint requirements.lock --no-build-isolation --editable '.[peers]')
	$(BIN)/python -m benchmarks.run $(ARGS)

faults: $(VENV)/installed
	$(BIN)/python -m tests.faults.run $(ARGS)

# atheris is not in the lock: 35 MB that only this needs, and wheels for Linux on x86-64 alone. Without it hypothesis draws
# the inputs by itself.
fuzz: $(VENV)/installed
	-$(PIP) install --only-binary :all: 'atheris>=3,<4'
	$(BIN)/python -m tests.fuzz.run $(ARGS)

lock: $(VENV)/installed
	$(PIP) install uv
	( sed '/^[^#]/,$$d' requirements.lock; \
	  $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --upgrade --quiet \
	    --extra dkim --extra otel --extra demo --extra dev \
	    --no-header --no-annotate --no-emit-index-url --no-emit-find-links ) > requirements.lock.new
	mv requirements.lock.new requirements.lock

clean:
	rm -rf $(VENV) var

# The stamp makes the second run instant; a changed lock or pyproject.toml makes the environment anew. Without a pip of its
# own, since Debian's Python cannot make one before the package python3-venv is there; the pip that is there serves both.
$(VENV)/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info[:2] < (3, 14) or sys.exit("mail_service needs Python 3.11, 3.12 or 3.13, and this is %d.%d. Choose another one: make PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv --clear --without-pip $(VENV)
	$(PIP) install --requirement requirements.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@
