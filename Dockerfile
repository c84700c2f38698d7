# syntax=docker/dockerfile:1

# Stage 1: everything is installed into one folder, from the lock file with hashes.
FROM python:3.12-slim AS build
WORKDIR /src
RUN python -m venv /opt/triage
ENV PATH=/opt/triage/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements.txt ./
RUN pip install --require-hashes -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY rules ./rules
COPY triage ./triage
RUN pip install --no-deps . && python -m compileall -q /opt/triage/lib

# Stage 2: that folder and nothing else. Works with a read-only root: `docker run --read-only --tmpfs /tmp ...`.
FROM python:3.12-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/triage --shell /usr/sbin/nologin triage \
    && install -d -m 0700 -o triage -g triage /var/lib/triage
COPY --from=build /opt/triage /opt/triage
ENV PATH=/opt/triage/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TRIAGE_STATE_DIR=/var/lib/triage
USER 10001
VOLUME /var/lib/triage

# The operations endpoint, for the check below; variables win over the configuration file. To have probes and Prometheus
# ask from outside: TRIAGE_WEB__LISTEN=0.0.0.0:8020 and a token in TRIAGE_WEB__TOKEN or the secret file web__token.
ENV TRIAGE_WEB__LISTEN=127.0.0.1:8020
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 \
    CMD ["triage", "health"]

# The exec form: SIGTERM reaches triage itself, which then finishes what it holds (20 s; `docker stop -t 30`).
ENTRYPOINT ["triage"]
CMD ["run"]
