"""Curl commands, and the request that curl sends for each: what the page's form must make of them.

A request is (method, target, headers that must be there with these values, headers that must not be there); a text is what the refusal says.
"""

COMMANDS = [
    ("curl -sD - http://h/x", ("GET", "/x", {"host": "h", "accept": "*/*"}, ["range"])),
    ("curl -D f http://h/x", ("GET", "/x", {"host": "h"}, [])),
    ("curl -r 0-99 http://h/x", ("GET", "/x", {"range": "bytes=0-99"}, [])),
    ("curl -U a:b http://h/x", ("GET", "/x", {}, ["authorization"])),
    ("curl -z x http://h/x", ("GET", "/x", {}, ["if-modified-since"])),
    ("curl -t x http://h/x", ("GET", "/x", {}, [])),
    ("curl -C - http://h/x", ("GET", "/x", {}, ["range"])),
    ("curl --max-redirs 5 --retry-delay 1 --tls-max 1.2 http://h/x", ("GET", "/x", {}, [])),
    ("curl --oauth2-bearer T http://h/x", ("GET", "/x", {"authorization": "Bearer T"}, [])),
    ("curl --request-target '*' -X OPTIONS http://h/", ("OPTIONS", "*", {"host": "h"}, [])),
    ("curl --unix-socket /s http://h/x", ("GET", "/x", {}, [])),
    ("curl -d '' http://h/x", ("POST", "/x", {"content-length": "0"}, [])),
    ("curl -d '-abc' http://h/x", ("POST", "/x", {"content-type": "application/x-www-form-urlencoded"}, [])),
    ("curl -T f http://h/x", ("PUT", "/x", {}, ["content-type"])),
    ("curl -F a=b http://h/x", ("POST", "/x", {}, [])),
    ("curl http://u:p@h/x", ("GET", "/x", {"authorization": "Basic dTpw", "host": "h"}, [])),
    ("curl -u u: http://a:b@h/x", ("GET", "/x", {"authorization": "Basic dTo="}, [])),
    ("curl http://h/../a/./b/../c/..", ("GET", "/a/", {}, [])),
    ("curl --path-as-is http://h/../x", ("GET", "/../x", {}, [])),
    (r"curl $'http://h/it\'s' -H $'x: \u0021\x41\303\251'", ("GET", "/it's", {"x": "!Aé"}, [])),
    (r"curl -d $'a\nb' http://h/x", ("POST", "/x", {}, [])),
    ("curl -H 'x-empty;' h/x", ("GET", "/x", {"x-empty": ""}, [])),
    ("curl -H 'Accept:' -H 'User-Agent: me' h/x", ("GET", "/x", {"user-agent": "me"}, ["accept"])),
    ("sudo curl -XDELETE http://h/x", ("DELETE", "/x", {}, [])),
    ("A=b time /usr/bin/curl h/x | jq .", ("GET", "/x", {}, [])),
    ("curl h/x > /dev/null 2>&1; echo done", ("GET", "/x", {}, [])),
    ("curl 'http://h/x' \\\n  -H 'a: b' \\\n  --data-raw '{\"a\":1}'", ("POST", "/x", {"a": "b"}, [])),
    ("curl -G -d a=b --data-urlencode 'c=d e' http://h/x?y=1", ("GET", "/x?y=1&a=b&c=d+e", {}, ["content-type"])),
    ("curl --json '{}' http://h/x", ("POST", "/x", {"content-type": "application/json", "accept": "application/json"}, [])),
    ("curl -b a=b -b c=d http://h:80/x#f", ("GET", "/x", {"cookie": "a=b;c=d", "host": "h"}, [])),
    ("curl -I http://h:8080", ("HEAD", "/", {"host": "h:8080"}, [])),
    ("curl -e ref -A '' http://h/x", ("GET", "/x", {"referer": "ref"}, ["user-agent"])),
    ("curl --no-keepalive -vvvk#4 --compressed http://h/x", ("GET", "/x", {}, [])),
    (r"curl 'http://h/x?a\[0\]=1'", ("GET", "/x?a[0]=1", {}, [])),
    ("curl -- http://h/x", ("GET", "/x", {}, [])),
]

# What is refused, and a part of why.
REFUSED = [
    ("curl --frobnicate http://h/x", "no option --frobnicate"),
    ("curl -% http://h/x", "no option -%"),
    ("curl -s -o", "-o needs a value"),
    ("curl", "no URL"),
    ("curl http://h/a http://h/b", "several requests"),
    ("curl http://h/a --next http://h/b", "several requests"),
    ("curl http://h/x?a=1&b=2", "outside of quotes"),
    ("curl 'http://h/x", "not closed"),
    ("curl 'http://h/[1-3]'", "several requests"),
    ("curl ftp://h/x", "not HTTP"),
]

# What is said of a request that is not known in full.
NOTED = [("curl -F a=b h/x", "multipart"), ("curl -d @f h/x", "file f"), ("curl -T f h/x", "file f"), ("curl -b jar h/x", "file jar")]
