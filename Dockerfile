# The root file system of the managed plugin, and an image to run the daemon in a container:
#
#   docker build -t spanlan .
#   docker run -d --net host --cap-drop ALL --cap-add NET_ADMIN -v /run/docker/plugins:/run/docker/plugins \
#       -v /var/lib/spanlan:/var/lib/spanlan -e SPANLAN_STORE=etcd://… spanlan
#
# BASE: any Debian with Python 3.11 or newer, for instance a mirror's or one pinned by digest.
ARG BASE=debian:12-slim

FROM ${BASE} AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml README.md LICENSE /src/
COPY plugin /src/plugin
RUN python3 -m venv /opt/spanlan \
    && /opt/spanlan/bin/python -m pip install --no-cache-dir --disable-pip-version-check /src \
    && /opt/spanlan/bin/python -m pip uninstall --yes pip

FROM ${BASE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* \
    && mkdir -p /run/docker/plugins /var/lib/spanlan
COPY --from=build /opt/spanlan /opt/spanlan
LABEL org.opencontainers.image.title="spanlan" \
      org.opencontainers.image.description="A LAN that spans Docker hosts: a network and IPAM plugin for plain Docker engines" \
      org.opencontainers.image.licenses="Apache-2.0"
ENTRYPOINT ["/opt/spanlan/bin/spanlan", "serve"]
