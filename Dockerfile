# Frostbit in a container.
#   docker build --target slim -t frostbit .          bench and export, no torch
#   docker build --target train -t frostbit:train .   everything, CUDA torch included
#   docker run --rm -v "$PWD/runs:/data/runs" frostbit:train run --recipe digits
# The base is an argument: pin it by digest for a reproducible build.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
RUN python3 -m venv /opt/frostbit
COPY requirements/export.txt requirements/export.txt
RUN /opt/frostbit/bin/pip install --no-compile --require-hashes -r requirements/export.txt
COPY pyproject.toml README.md LICENSE ./
COPY kernels kernels
COPY export export
COPY pipeline pipeline
RUN /opt/frostbit/bin/pip install --no-compile --no-deps .

FROM build AS build-train
COPY requirements/train.txt requirements/train.txt
RUN /opt/frostbit/bin/pip install --no-compile --require-hashes -r requirements/train.txt

FROM ${BASE} AS slim
COPY --from=build /opt/frostbit /opt/frostbit
RUN useradd --create-home --uid 1000 frostbit && mkdir /data && chown frostbit /data
USER 1000
WORKDIR /data
ENTRYPOINT ["/opt/frostbit/bin/pipeline"]
CMD ["--help"]

FROM slim AS train
COPY --from=build-train /opt/frostbit /opt/frostbit
