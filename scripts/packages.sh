# Sourced: the distribution's packages, installed only where something is missing.
# shellcheck shell=bash

: "${tools:?lib.sh comes first}"

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif have sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    sudo "$@"
  else
    return 1
  fi
}

apt_lists_fresh=""

apt_refresh() {
  have apt-get || return 1
  if [ -n "$apt_lists_fresh" ]; then return 0; fi
  mkdir -p "$tools"
  as_root apt-get update >"$tools/apt.log" 2>&1 || return 1
  apt_lists_fresh=yes
}

# Whether the distribution has a real package of this name.
apt_offers() {
  apt_refresh && [ -n "$(apt-cache show "$1" 2>/dev/null)" ]
}

# apt_install PACKAGE…: false where that is not possible here; the caller says what to do instead.
apt_install() {
  apt_refresh || return 1
  say "  installing $* with apt-get"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >>"$tools/apt.log" 2>&1
}

# need_packages WHAT PACKAGE…: installs them or says how.
need_packages() {
  local what=$1
  shift
  apt_install "$@" || die "$what is missing and could not be installed" "as root: apt-get update && apt-get install $* (what it said is in .tools/apt.log)"
}
