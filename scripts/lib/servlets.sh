# shellcheck shell=bash
# Servlets for tests/peers and tests/receivers, in Debian's Tomcat; sourced after lib.sh.

SERVLET_JARS=(tomcat10-embed-core tomcat10-annotations-api jackson-core jackson-annotations jackson-databind)

has_servlet_jars() {
    local jar
    for jar in "${SERVLET_JARS[@]}"; do [[ -e /usr/share/java/$jar.jar ]] || return 1; done
}

# want_servlets: like want, for a Java compiler and the libraries.
want_servlets() {
    local packages=(libtomcat10-embed-java libtomcat10-java libjackson2-databind-java)
    want javac default-jdk-headless
    has_servlet_jars || apt_install "${packages[@]}" || true
    if [[ ${CI:-} == true ]] && ! has_servlet_jars; then MISSING_PACKAGES+=("${packages[@]}"); fi
}

# compile_servlets: exports SERVLET_CLASSPATH if the tools are there.
compile_servlets() {
    have javac && has_servlet_jars || return 0
    local classes=$ROOT/target/servlets jars
    mkdir -p "$classes"
    jars=$(printf ":/usr/share/java/%s.jar" "${SERVLET_JARS[@]}")
    javac -cp "$classes$jars" -d "$classes" "$ROOT"/tests/receivers/java/*.java "$ROOT"/examples/receivers/servlet/*.java
    export SERVLET_CLASSPATH=$classes$jars
}
