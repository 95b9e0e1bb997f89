#!/bin/sh
# An example of a file that a recipe copies in and a hook runs.
set -eu
echo "deployed" > /srv/state
