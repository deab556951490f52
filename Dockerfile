# Frostbit in a container.
#   docker build --target slim -t frostbit .          bench and export, no torch
#   docker build --target train -t frostbit:train .   everything, CUDA torch included
#   docker build --target warm -t frostbit:warm .     slim, and the engine compiled for this CPU
#   docker buildx build --platform linux/amd64,linux/arm64 --target slim -t frostbit .
#   docker run --rm --read-only --tmpfs /tmp frostbit:warm bench /models/model.bnn --json /tmp/b.json
#   docker run --rm -v "$PWD/runs:/data/runs" frostbit:train run --recipe digits
# The base is an argument: pin it by digest for a reproducible build. LCE's own environment is in no
# image (its interpreter needs numpy 1): `pipeline doctor --install-lce` adds it to a derived one.
# docs/docker.md says more; `make docker-test` builds and runs all of it.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
RUN python3 -m venv --without-pip /opt/frostbit
COPY requirements/export.txt requirements/export.txt
RUN python3 -m pip --python /opt/frostbit/bin/python install --no-compile --require-hashes -r requirements/export.txt
COPY pyproject.toml README.md LICENSE ./
COPY frostbit frostbit
COPY kernels kernels
COPY export export
COPY pipeline pipeline
RUN python3 -m pip --python /opt/frostbit/bin/python install --no-compile --no-deps .

FROM build AS build-train
COPY requirements/train.txt requirements/train.txt
RUN python3 -m pip --python /opt/frostbit/bin/python install --no-compile --require-hashes -r requirements/train.txt

FROM ${BASE} AS slim
COPY --from=build /opt/frostbit /opt/frostbit
RUN useradd --create-home --uid 1000 frostbit && mkdir /data && chown frostbit /data
ENV PATH=/opt/frostbit/bin:${PATH}
USER 1000
WORKDIR /data
ENTRYPOINT ["pipeline"]
CMD ["--help"]

FROM slim AS train
COPY --from=build-train /opt/frostbit /opt/frostbit

# The engine compiled ahead of time: for the building machine's CPU ("host"), and for others by
# LLVM's name and features, e.g. --build-arg CPUS="host znver3:+avx2,+popcnt". Compiled code depends
# on them, so this layer differs between machines; a CPU that is not there compiles at first start.
FROM slim AS warm
ARG CPUS=host
ENV FROSTBIT_CACHE=/home/frostbit/compiled
RUN for cpu in ${CPUS}; do \
        if [ "$cpu" = host ]; then pipeline bench --warm-cache || exit 1; \
        else NUMBA_CPU_NAME="${cpu%%:*}" NUMBA_CPU_FEATURES="${cpu#*:}" pipeline bench --warm-cache \
            || exit 1; fi; \
    done
