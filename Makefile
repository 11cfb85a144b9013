# The nginx to build for, and its source. Debian's nginx-dev package installs the source of Debian's
# own nginx; any other nginx needs NGINX_SOURCE_DIR (the unpacked source of the same version).
NGINX_BINARY ?= nginx
export NGINX_BINARY

# Where `make install` puts the module: nginx's own modules directory, below DESTDIR.
MODULES_PATH ?=
DESTDIR ?=

CARGO ?= cargo
TARGET_DIR = $(or $(CARGO_TARGET_DIR),target)

# `make run` listens here.
PORT ?= 5000

# `make fuzz` runs each target this long.
SECONDS_EACH ?= 60

# `make hostile` and `make soak` run this long.
MINUTES ?= 20

module = objs/ngx_http_docker_module.so

.DEFAULT_GOAL := build
.PHONY: help setup build install deb deb-test test matrix lint demo run bench fuzz hostile soak valgrind asan \
	clean

help: ## List the targets, this one too
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Get what building needs from Debian: removes nothing, starts no service
	scripts/setup build

build: ## Build the module for the nginx that is installed, into objs/
	@scripts/setup --check build
	scripts/for-nginx $(CARGO) build --release --locked --package ngx_http_docker_module
	mkdir -p objs
	cp $(TARGET_DIR)/release/libngx_http_docker_module.so $(module).new
	mv $(module).new $(module)

install: ## Put the module into nginx's modules directory, and on Debian offer it to nginx.conf
	MODULES_PATH=$(MODULES_PATH) DESTDIR=$(DESTDIR) scripts/install $(module)

deb: build ## Pack the module as libnginx-mod-http-docker, for the nginx that Debian has installed
	scripts/deb $(module)

deb-test: deb ## Install that package in a Debian of its own, use it, and remove it; needs root
	scripts/setup deb
	scripts/deb-test objs/libnginx-mod-http-docker_*.deb

test: ## Set this machine up, run the unit tests, then the module inside two versions of nginx
	scripts/test

matrix: ## Run the module's tests in two more: nginx of Debian 13, and of Debian unstable
	scripts/test --matrix

lint: ## Check format, lints, and licences, sources and advisories of dependencies
	scripts/lint

demo: ## Set this machine up and watch a pull through the mirror: without Docker Hub, leaves nothing
	scripts/demo

run: build ## Mirror the real Docker Hub in the foreground, on http://127.0.0.1:PORT (5000)
	PORT=$(PORT) scripts/run

bench: ## Compare with the recipe, with configuration alone and with njs; writes BENCHMARKS.md
	scripts/setup bench
	scripts/bench

fuzz: ## Fuzz every parser for SECONDS_EACH (60) seconds
	scripts/fuzz $(SECONDS_EACH)

hostile: ## Let a hub that answers anything loose on nginx for MINUTES (20); SEED=n repeats a run
	@scripts/setup --check build
	MINUTES=$(MINUTES) SEED=$(SEED) scripts/for-nginx $(CARGO) test --locked --test hostile -- --nocapture

soak: ## Let 200 clients pull for MINUTES (20) through faults, reloads, upgrades and killed workers
	@scripts/setup --check build
	MINUTES=$(MINUTES) SEED=$(SEED) scripts/for-nginx $(CARGO) test --locked --test soak -- --nocapture

valgrind: ## Run the module's tests with nginx under valgrind
	scripts/test --valgrind

asan: ## Run the module's tests with nginx and the module under AddressSanitizer
	scripts/test --asan

clean: ## Remove what was built
	$(CARGO) clean
	rm -rf objs build worker/node_modules
