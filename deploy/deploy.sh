#!/bin/sh
# The work pools, the deployments of prefect.yaml and the automations, for the server that PREFECT_API_URL names.
# May be run again and again: what is there is updated, or left as it is.
set -eu

cd "$(dirname "$0")/.."
for pool in kafka-sort kafka-sort-dask; do
    prefect work-pool inspect "$pool" >/dev/null 2>&1 || prefect work-pool create "$pool" --type process
done
prefect --no-prompt deploy --all
for file in deploy/automations/*.yaml; do
    name=$(sed -n 's/^name: "\(.*\)"$/\1/p' "$file")
    prefect automation inspect "$name" >/dev/null 2>&1 || prefect automation create --from-file "$file"
done
