mirror
ask internal.example acme/app/manifests/v1
cat mirror.log
