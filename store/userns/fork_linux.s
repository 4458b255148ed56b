// Empty on purpose: with an assembly file in the package the compiler accepts the functions without a body that
// fork_linux.go links to the runtime.
