#!/usr/bin/env bash
# Ruby's Oj.load turns a text that begins with a colon into a Symbol, and removes that colon: an IPv6 address becomes another
# one.
#
# Guess before the run: a JSON text is a String in Ruby, whatever its first character, with every parser.
# Seen with Oj 3.14.2: Oj.load uses the mode :object by default, in which ":x" means a Ruby symbol. So "::ffff:10.0.0.5" becomes
# the Symbol ":ffff:10.0.0.5", and ":1001" the Symbol "1001"; as text both have lost a colon. There is no error. Oj.strict_load
# and Oj.compat_load give Strings, as Ruby's own json and Yajl 1.4.3 do.
# For a receiver: device_ip may be an IPv6 address, and ids are free text. Use Oj.strict_load, or set Oj.default_options =
# {mode: :strict}.
# shellcheck source=findings/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
[[ $(ruby -e 'print RbConfig::CONFIG["ruby_version"]' 2>/dev/null) == 3.1.0 ]] ||
    { echo "Ruby 3.1 is needed, as Debian 12 has it: apt-get install ruby" >&2; exit 2; }
debian ruby-oj=3.14.2-1 ruby-yajl=1.4.3-1+b2 libyajl2=2.1.0-3+deb12u2
integration=$LIB/rubygems-integration/3.1.0
cat >texts.rb <<'CODE'
require "bigdecimal"
require "ostruct"
require "oj"
require "json"
require "yajl"

EVENT = '{"identity_id": ":1001", "identity_name": "Li Lei", "device_ip": "::ffff:10.0.0.5"}'
{
  "Oj.load" => -> { Oj.load(EVENT) },
  "Oj.strict_load" => -> { Oj.strict_load(EVENT) },
  "Oj.compat_load" => -> { Oj.compat_load(EVENT) },
  "JSON.parse" => -> { JSON.parse(EVENT) },
  "Yajl::Parser.parse" => -> { Yajl::Parser.parse(EVENT) },
}.each { |name, read| puts "#{name}: #{read.call.values.map { |value| "#{value.class} #{value}" }.join(", ")}" }
CODE
folders=(-I root/usr/lib/ruby/vendor_ruby -I "$LIB/ruby/vendor_ruby/3.1.0")
for folder in "$integration"/gems/*/lib "$integration"/extensions/*/3.1.0/*; do folders+=(-I "$folder"); done
ruby "${folders[@]}" texts.rb >seen
cat >expected <<'SEEN'
Oj.load: Symbol 1001, String Li Lei, Symbol :ffff:10.0.0.5
Oj.strict_load: String :1001, String Li Lei, String ::ffff:10.0.0.5
Oj.compat_load: String :1001, String Li Lei, String ::ffff:10.0.0.5
JSON.parse: String :1001, String Li Lei, String ::ffff:10.0.0.5
Yajl::Parser.parse: String :1001, String Li Lei, String ::ffff:10.0.0.5
SEEN
same expected seen
