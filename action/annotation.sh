# shellcheck shell=bash
# One annotation of a GitHub workflow, to be sourced: annotation LEVEL FILE TITLE MESSAGE, with what has a meaning there escaped.

escaped() {
  local text=${1//'%'/%25}
  text=${text//$'\r'/%0D}
  printf %s "${text//$'\n'/%0A}"
}

property() {
  local text
  text=$(escaped "$1")
  text=${text//:/%3A}
  printf %s "${text//,/%2C}"
}

annotation() {
  printf '::%s file=%s,title=%s::%s\n' "$1" "$(property "$2")" "$(property "$3")" "$(escaped "$4")"
}
