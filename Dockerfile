# The product's image: Airflow with the package, its DAGs and its SQL, at locked versions.
# PYTHON_VERSION may be any of 3.11 to 3.13.
ARG PYTHON_VERSION=3.11.14

FROM python:${PYTHON_VERSION}-slim-bookworm AS build

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1
WORKDIR /build
COPY requirements-build.txt requirements-image.txt ./
# Two environments: one builds the wheel and is left behind, one is what runs, without pip.
RUN python -m venv /build/venv \
    && /build/venv/bin/pip install --require-hashes -r requirements-build.txt \
    && python -m venv --without-pip /opt/venv \
    && /build/venv/bin/uv pip install --python /opt/venv/bin/python --only-binary :all: \
       --require-hashes -r requirements-image.txt
COPY pyproject.toml README.md ./
COPY sql ./sql
COPY plugins ./plugins
COPY dags ./dags
RUN /build/venv/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /build/wheel . \
    && /build/venv/bin/uv pip install --python /opt/venv/bin/python --no-deps /build/wheel/*.whl


FROM python:${PYTHON_VERSION}-slim-bookworm

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/airflow/dags \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    ANOMALY_MODELS_URL=/opt/airflow/models

# The Python that runs is that of /opt/venv; the image's own pip is not needed.
RUN pip uninstall --yes pip \
    && useradd --uid 50000 --gid 0 --no-create-home --home-dir /opt/airflow airflow \
    && mkdir -p /opt/airflow/models /opt/airflow/logs /opt/airflow/secrets \
    && chown -R airflow:0 /opt/airflow

COPY --from=build /opt/venv /opt/venv
COPY docker/healthy.py /usr/local/bin/healthy
COPY docker/init /opt/airflow/init
COPY dags /opt/airflow/dags

WORKDIR /opt/airflow
USER 50000
CMD ["airflow", "version"]
