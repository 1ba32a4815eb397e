# The program as an image: docker build -t spate . && docker run --rm spate demo
#
# No network but through a module proxy of your own? --build-arg GOPROXY=..., and GOFLAGS, GONOSUMDB and the like in the same way. Unset,
# they are Go's own defaults. HTTPS_PROXY and NO_PROXY are build arguments that Docker knows by itself.
FROM golang:1.26 AS build
WORKDIR /src
ARG GOPROXY
ARG GOFLAGS
ARG GONOSUMDB
ARG GOSUMDB

# A layer of its own: it is made again only when a dependency changes.
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download

COPY . .
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/go/cache \
    GOCACHE=/go/cache CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o /spate .

# Certificates, time zones, the user nonroot (65532), and neither a shell nor anything else.
FROM gcr.io/distroless/static-debian12:nonroot
LABEL org.opencontainers.image.title="spate" \
      org.opencontainers.image.description="Finds bursts in a stream of events while they happen" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /spate /spate
# In a container the pages for operators must be on an interface that others reach.
ENV SPATE_HTTP=0.0.0.0:8080
EXPOSE 8080
USER nonroot
# Of the services. A command that is none (simulate, demo) is better run with --no-healthcheck.
HEALTHCHECK --interval=3s --timeout=5s --start-period=30s --retries=10 CMD ["/spate", "health"]
ENTRYPOINT ["/spate"]
