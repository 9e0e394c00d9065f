# camlink, for all of its workers: one image, the command says which.
#   docker build -t camlink .                       CPU, or CUDA with the drivers of the host (torch brings its own CUDA)
#   docker build --build-arg BASE_IMAGE=... .       any Debian or Ubuntu with Python 3.11 or newer
ARG BASE_IMAGE=python:3.11.11-slim-bookworm
FROM ${BASE_IMAGE}

RUN apt-get update \
 && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 python3 python3-venv \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --create-home --home-dir /var/lib/camlink camlink \
 && mkdir /results && chown camlink:camlink /results

WORKDIR /opt/camlink
# What is installed is gigabytes and changes less often than the code: a layer of its own, kept while pyproject.toml and
# the versions stand.
ARG EXTRAS=kafka,confluent,redis,dashboard,keyframes,mqtt
COPY pyproject.toml constraints.txt ./
RUN python3 -m venv /opt/venv \
 && EXTRAS="$EXTRAS" python3 -c "import os, tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*p['dependencies'], *(d for e in os.environ['EXTRAS'].split(',') for d in p['optional-dependencies'][e]), sep='\n')" >wanted.txt \
 && /opt/venv/bin/pip install --no-cache-dir -c constraints.txt -r wanted.txt
COPY README.md LICENSE ./
COPY camlink camlink
COPY camera_configs camera_configs
COPY links links
COPY models models
COPY operators operators
COPY pipeline pipeline
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps .

USER camlink
WORKDIR /var/lib/camlink
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 CAMLINK_OUT=/results
VOLUME ["/results", "/var/lib/camlink"]
ENTRYPOINT ["camlink"]
CMD ["--help"]
