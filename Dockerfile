# The released image: the static program and nothing else; and one with a shell, for CI systems that run
# their scripts inside an image. Nothing is compiled here: programs/ARCH/qualm in the context is the program
# that the archives for musl hold.
#
#   docker run --rm -v "$PWD:/work:ro" IMAGE check model-bf16 model-Q4_K_M.gguf
FROM alpine:3.22 AS shell
ARG TARGETARCH
COPY --chmod=755 programs/${TARGETARCH}/qualm /usr/local/bin/qualm
RUN adduser -D -u 65532 qualm
USER 65532:65532
WORKDIR /work
CMD ["qualm", "--help"]

FROM scratch AS minimal
ARG TARGETARCH
COPY --chmod=755 programs/${TARGETARCH}/qualm /usr/local/bin/qualm
COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/qualm/
ENV PATH=/usr/local/bin
USER 65532:65532
WORKDIR /work
ENTRYPOINT ["/usr/local/bin/qualm"]
CMD ["--help"]
