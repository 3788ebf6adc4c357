# Larder's image. make image builds the same without Docker; docs/install.md tells
# what is in it and why. With Docker or buildah, from a checkout:
#
#   docker buildx build --platform linux/amd64,linux/arm64 \
#     --build-arg VERSION=v0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" \
#     --build-arg SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)" .
#
# The compiler runs on the machine's own architecture and compiles for the other:
# nothing is emulated.
ARG GO_VERSION=1.26.8
FROM --platform=$BUILDPLATFORM golang:${GO_VERSION} AS build
WORKDIR /src

# Modules are fetched once, and again only when they change.
COPY go.mod go.sum ./
COPY test/release/go.mod test/release/go.sum test/release/
RUN go mod download && cd test/release && go mod download

COPY . .
ARG TARGETARCH
ARG VERSION=devel
ARG SOURCE_DATE_EPOCH=0
# The image's files, all of them: test/release/rootfs is the list.
RUN cd test/release && go run ./cmd/rootfs -root /src -out /rootfs \
    -arch "$TARGETARCH" -version "$VERSION" -epoch "$SOURCE_DATE_EPOCH"

FROM scratch
ARG VERSION=devel
ARG REVISION=
LABEL org.opencontainers.image.title="Larder" \
      org.opencontainers.image.description="Keeps container images near the nodes that run them" \
      org.opencontainers.image.source="https://github.com/larder-registry/larder" \
      org.opencontainers.image.documentation="https://github.com/larder-registry/larder/tree/main/docs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /rootfs/ /
ENV PATH=/usr/local/bin
# The only directory that this user may write to.
WORKDIR /var/lib/larder
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/larder"]
