# One image for the Prefect server, the deployments, workers and streams: what deploy/requirements.lock says, and the
# project. Nothing of it runs as root, or writes outside of /var/lib/kafka-sort, /var/lib/prefect and /tmp.
FROM python:3.12.11-slim-bookworm AS build

WORKDIR /app
RUN python -m venv /opt/venv
COPY deploy/requirements.lock ./
# The lock is whole and hashed, so nothing is resolved; the build backend comes from it too.
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE prefect.yaml ./
COPY deploy/automations deploy/automations
COPY deploy/deploy.sh deploy/
COPY flows flows
COPY tasks tasks
COPY kafka_sort kafka_sort
COPY kafka_sort_command.py ./
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation -e .


FROM python:3.12.11-slim-bookworm

RUN useradd --uid 10001 --home-dir /var/lib/kafka-sort --shell /usr/sbin/nologin kafka-sort \
    && install --directory --owner kafka-sort --group kafka-sort /var/lib/kafka-sort /var/lib/prefect
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PREFECT_HOME=/var/lib/prefect \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    PREFECT_LOGGING_EXTRA_LOGGERS=kafka_sort \
    DO_NOT_TRACK=1 \
    KAFKA_SORT_HOME=/app \
    KAFKA_SORT_LOG_FORMAT=json

WORKDIR /app
USER 10001
CMD ["kafka-sort", "--help"]
