#!/bin/sh
# The work pool, the deployments of prefect.yaml and the automations, for the server that PREFECT_API_URL names.
# May be run again and again: what is there is updated, or left as it is.
set -eu

cd "$(dirname "$0")/.."
prefect work-pool inspect kafka-sort >/dev/null 2>&1 || prefect work-pool create kafka-sort --type process
prefect --no-prompt deploy --all
for file in deploy/automations/*.yaml; do
    name=$(sed -n 's/^name: "\(.*\)"$/\1/p' "$file")
    prefect automation inspect "$name" >/dev/null 2>&1 || prefect automation create --from-file "$file"
done
