# The base image has Python 3.11 or newer; the one to build on also has pip and venv.
ARG BASE=python:3.13-slim
ARG BUILD_BASE=$BASE

# Stage 1: everything is installed into one folder, from the lock file with hashes, without pip itself.
# hadolint ignore=DL3006
FROM $BUILD_BASE AS build
WORKDIR /src
# Where pip finds packages when that is not the public index: --build-arg PIP_INDEX_URL=... ; for a folder of wheels
# mounted by the builder PIP_NO_INDEX=1 and PIP_FIND_LINKS=/wheels. They are not part of the image.
ARG PIP_INDEX_URL
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv --without-pip /opt/triage
# requirements-otel.txt for an image that can send traces.
ARG REQUIREMENTS=requirements.txt
COPY $REQUIREMENTS ./
RUN python3 -m pip --python /opt/triage/bin/python install --require-hashes -r "$REQUIREMENTS"
COPY pyproject.toml README.md LICENSE ./
COPY rules ./rules
COPY triage ./triage
# pip is a dependency of a dependency that never calls it here.
RUN python3 -m pip --python /opt/triage/bin/python install --no-deps . \
    && python3 -m pip --python /opt/triage/bin/python uninstall --yes pip

# Stage 2: that folder and nothing else. It works with a read-only root; all it writes is in the volume.
# hadolint ignore=DL3006
FROM $BASE
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="triage" \
      org.opencontainers.image.description="Re-runs failed serverless tasks exactly once, or tells the right person once" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
# A user of its own, and no tool to install anything with.
RUN echo "triage:x:10001:10001::/var/lib/triage:/usr/sbin/nologin" >> /etc/passwd \
    && echo "triage:x:10001:" >> /etc/group \
    && install -d -m 0700 -o 10001 -g 10001 /var/lib/triage \
    && rm -rf /usr/local/bin/pip* /usr/local/lib/python3.*/site-packages/pip* /usr/local/lib/python3.*/ensurepip
COPY --from=build /opt/triage /opt/triage
ENV PATH=/opt/triage/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TRIAGE_STATE_DIR=/var/lib/triage
USER 10001:10001
WORKDIR /var/lib/triage
VOLUME /var/lib/triage

# The operations endpoint, for the check below; variables win over the configuration file. To have probes and Prometheus
# ask from outside: TRIAGE_WEB__LISTEN=0.0.0.0:8020 and a token in TRIAGE_WEB__TOKEN or the secret file web__token.
ENV TRIAGE_WEB__LISTEN=127.0.0.1:8020
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 \
    CMD ["triage", "health"]

# The exec form: SIGTERM reaches triage itself, which is process 1 and has no children. It then finishes what it holds
# (20 s; `docker stop -t 30`). The kernel drops a signal that process 1 has no handler for; blocked by env, which then
# becomes triage, it waits until there is one.
STOPSIGNAL SIGTERM
ENTRYPOINT ["env", "--block-signal=TERM", "--block-signal=INT", "triage"]
CMD ["run"]
