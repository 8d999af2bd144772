#!/bin/sh
# Puts Chromium there for the test of the report, where that can be done: as root, with apt-get, and only if no browser
# is there yet. Never fails and prints nothing: without a browser that test is skipped and reports why.
for name in chromium chromium-browser google-chrome chrome; do
  command -v "$name" >/dev/null 2>&1 && exit 0
done
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || exit 0
export DEBIAN_FRONTEND=noninteractive
install() { timeout 240 apt-get install -y --no-install-recommends chromium >/dev/null 2>&1; }
install || { timeout 60 apt-get update >/dev/null 2>&1 && install; }
exit 0
