mirror
ask expired.example acme/app/manifests/v1
cat mirror.log
