cat >larder.yaml <<'END'
registry_proxies:
  maxsize: 50GiB
  min_free: 25
END
larder mirror --config larder.yaml || true
