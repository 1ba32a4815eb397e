# Container image: docker build -t spate . && docker run --rm spate demo
#
# To use your own module proxy, pass --build-arg GOPROXY=..., and also GOFLAGS, GONOSUMDB or GOSUMDB if needed; otherwise, Go's defaults
# apply. HTTPS_PROXY and NO_PROXY are predefined Docker build arguments.
FROM golang:1.26 AS build
WORKDIR /src
ARG GOPROXY
ARG GOFLAGS
ARG GONOSUMDB
ARG GOSUMDB

# The modules are in a separate layer, which is rebuilt only when a dependency changes.
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download

COPY . .
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/go/cache \
    GOCACHE=/go/cache CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o /spate .

# This base image contains certificates, time zones and the user nonroot (65532), but no shell or other programs.
FROM gcr.io/distroless/static-debian12:nonroot
LABEL org.opencontainers.image.title="spate" \
      org.opencontainers.image.description="Detects bursts in a stream of events as they happen" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /spate /spate
# In a container, the HTTP pages must be on an interface that is reachable from outside.
ENV SPATE_HTTP=0.0.0.0:8080
EXPOSE 8080
USER nonroot
# This health check is for the services. Run other commands (simulate, demo) with --no-healthcheck.
HEALTHCHECK --interval=3s --timeout=5s --start-period=30s --retries=10 CMD ["/spate", "health"]
ENTRYPOINT ["/spate"]
