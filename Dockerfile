# The product's image: Airflow with the package, its DAGs and its SQL, at locked versions.
FROM python:3.11-slim

ENV AIRFLOW_HOME=/opt/airflow \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    ANOMALY_MODELS_URL=/opt/airflow/models \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/airflow/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/airflow/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False

RUN useradd --uid 50000 --create-home --home-dir /home/airflow airflow \
    && mkdir -p /opt/airflow/models /opt/airflow/logs /opt/airflow/secrets \
    && chown -R airflow /opt/airflow

WORKDIR /opt/airflow
COPY requirements.txt ./
RUN pip install --require-hashes -r requirements.txt

COPY --chown=airflow pyproject.toml README.md ./
COPY --chown=airflow sql ./sql
COPY --chown=airflow plugins ./plugins
COPY --chown=airflow dags ./dags
# Puts the command `anomaly` on the path; the code itself stays in plugins/. The
# build backend is locked with everything else.
RUN pip install --no-deps --no-build-isolation -e .

USER airflow
CMD ["airflow", "version"]
