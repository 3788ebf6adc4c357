mirror
ask busy.example acme/app/manifests/v1
cat mirror.log
