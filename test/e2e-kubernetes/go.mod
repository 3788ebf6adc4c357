module github.com/larder-registry/larder/test/e2e-kubernetes

go 1.26.6

require go.uber.org/goleak v1.3.0

replace github.com/larder-registry/larder => ../..
