# The few daily verbs; each is a plain command.

# Format check, lints: what CI does before the tests.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# All tests.
test:
    cargo test --workspace --locked

# The whole system on this machine, with the demo service.
up *ARGS:
    cargo run --release -- up --demo {{ARGS}}

# A program as the images ship it: no library of the system needed, optimised as a whole. Takes minutes.
dist PACKAGE:
    cargo build --config .cargo/dist.toml --profile dist --locked -p {{PACKAGE}} --target "$(rustc -vV | sed -n 's/host: //p')"

# One bench, such as `just bench cold-start`.
bench NAME *ARGS:
    cargo run --release -p benches -- {{NAME}} {{ARGS}}

# Licences, advisories and sources of the dependencies.
deny:
    cargo deny check
