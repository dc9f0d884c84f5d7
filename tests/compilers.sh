# Which compiler can build for a target, and what this machine is: sourced by the
# scripts here.

sysroot_of() { "$1" --print sysroot 2>/dev/null || true; }
has_target() { [ -d "$(sysroot_of "$1")/lib/rustlib/$2/lib" ]; }
# Of the library, for cargo's build-std; without its lock file cargo refuses it.
has_source() { [ -f "$(sysroot_of "$1")/lib/rustlib/src/rust/library/Cargo.lock" ]; }

# Whether there are kernels of `ring/kernel/x86` to test.
is_x86() {
    case $(uname -m) in
        x86_64 | amd64) ;;
        *) false ;;
    esac
}
