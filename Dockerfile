# Two images, by their target: `hookbench` for the worker, Locust and JupyterLab (each service of
# docker-compose.yml has a command of its own), and `nats`.

# The image as it is published runs as root, and a new volume takes over the owner of its folder.
FROM nats:2.15.1-alpine AS nats
RUN mkdir -p /data && chown 1000:1000 /data
USER 1000:1000

FROM python:3.12.12-slim-bookworm AS hookbench

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1

# git: the handler that mirrors pushed repositories
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/*

# The user of the mounted folders: HOOKBENCH_UID in .env
ARG UID=1000
RUN useradd --uid "${UID}" --create-home --shell /usr/sbin/nologin hookbench

WORKDIR /srv/hookbench
COPY pyproject.toml README.md LICENSE ./
COPY hookbench/ hookbench/
COPY --chown=hookbench notebooks/ notebooks/
RUN pip install '.[embedded,loadtest,notebooks]'

COPY loadtests/ loadtests/
# A new volume takes over the owner of the folder that it is mounted on.
RUN install --directory --owner=hookbench results

USER hookbench
CMD ["hookbench", "--help"]
