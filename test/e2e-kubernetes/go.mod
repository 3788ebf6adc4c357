module github.com/larder-registry/larder/test/e2e-kubernetes

go 1.26.6

require github.com/larder-registry/larder v0.0.0

require (
	github.com/distribution/reference v0.6.0 // indirect
	github.com/opencontainers/go-digest v1.0.0 // indirect
	go.uber.org/goleak v1.3.0 // indirect
)

replace github.com/larder-registry/larder => ../..
