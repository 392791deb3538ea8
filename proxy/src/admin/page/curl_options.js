// Curl's options (`curl --help all`, up to 8.16): those with a value, and those without. `letter:name` where there is a letter.

const WITH_VALUE = `abstract-unix-socket alt-svc aws-sigv4 cacert capath E:cert cert-type ciphers K:config connect-timeout connect-to C:continue-at b:cookie
c:cookie-jar create-file-mode crlfile curves d:data data-ascii data-binary data-raw data-urlencode delegation dns-interface dns-ipv4-addr dns-ipv6-addr
dns-servers doh-url D:dump-header ech egd-file engine etag-compare etag-save expect100-timeout F:form form-string ftp-account ftp-alternative-to-user
ftp-method P:ftp-port ftp-ssl-ccc-mode happy-eyeballs-timeout-ms haproxy-clientip H:header hostpubmd5 hostpubsha256 hsts interface ip-tos ipfs-gateway json
keepalive-cnt keepalive-time key key-type knownhosts krb libcurl limit-rate local-port login-options mail-auth mail-from mail-rcpt max-filesize max-redirs
m:max-time netrc-file noproxy oauth2-bearer o:output output-dir parallel-max parallel-max-host pass pinnedpubkey preproxy proto proto-default proto-redir
x:proxy proxy-cacert proxy-capath proxy-cert proxy-cert-type proxy-ciphers proxy-crlfile proxy-header proxy-key proxy-key-type proxy-pass
proxy-pinnedpubkey proxy-service-name proxy-tls13-ciphers proxy-tlsauthtype proxy-tlspassword proxy-tlsuser U:proxy-user proxy1.0 pubkey Q:quote random-file
r:range rate e:referer X:request request-target resolve retry retry-delay retry-max-time sasl-authzid service-name sigalgs socks4 socks4a socks5
socks5-gssapi-service socks5-hostname Y:speed-limit y:speed-time ssl-sessions stderr t:telnet-option tftp-blksize z:time-cond tls-max tls13-ciphers
tlsauthtype tlspassword tlsuser trace trace-ascii trace-config unix-socket upload-flags T:upload-file url url-query u:user A:user-agent variable
vlan-priority w:write-out`;

const WITHOUT = `anyauth a:append basic ca-native cert-status compressed compressed-ssh create-dirs crlf digest q:disable disable-eprt disable-epsv
disallow-username-in-url doh-cert-status doh-insecure dump-ca-embed eprt epsv f:fail fail-early fail-with-body false-start follow form-escape ftp-create-dirs
ftp-pasv ftp-pret ftp-skip-pasv-ip ftp-ssl-ccc ftp-ssl-control G:get g:globoff haproxy-protocol I:head h:help http0.9 0:http1.0 http1.1 http2
http2-prior-knowledge http3 http3-only ignore-content-length i:include k:insecure 4:ipv4 6:ipv6 j:junk-session-cookies l:list-only L:location
location-trusted mail-rcpt-allowfails M:manual metalink mptcp negotiate n:netrc netrc-optional ::next N:no-buffer no-alpn no-clobber no-keepalive no-npn
no-progress-meter no-sessionid ntlm ntlm-wb out-null Z:parallel parallel-immediate path-as-is post301 post302 post303 #:progress-bar proxy-anyauth
proxy-basic proxy-ca-native proxy-digest proxy-http2 proxy-insecure proxy-negotiate proxy-ntlm proxy-ssl-allow-beast proxy-ssl-auto-client-cert proxy-tlsv1
p:proxytunnel raw J:remote-header-name O:remote-name remote-name-all R:remote-time remove-on-error retry-all-errors retry-connrefused sasl-ir S:show-error
s:silent skip-existing socks5-basic socks5-gssapi socks5-gssapi-nec ssl ssl-allow-beast ssl-auto-client-cert ssl-no-revoke ssl-reqd ssl-revoke-best-effort
2:sslv2 3:sslv3 styled-output suppress-connect-headers tcp-fastopen tcp-nodelay tftp-no-options tls-earlydata 1:tlsv1 tlsv1.0 tlsv1.1 tlsv1.2 tlsv1.3
tr-encoding trace-ids trace-time B:use-ascii v:verbose V:version xattr`;

const [byName, byLetter] = [new Map(), new Map()];
for (const [list, takesValue] of [[WITH_VALUE, true], [WITHOUT, false]]) {
  for (const entry of list.split(/\s+/)) {
    const [, letter, name] = /^(?:(.):)?(.+)$/.exec(entry);
    byName.set(name, takesValue);
    if (letter) byLetter.set(letter, name);
  }
}

// By its name, or by what it begins with where nothing else does; `no-` before one without a value turns it off.
function named(word) {
  const name = word.slice(2);
  if (byName.has(name)) return name;
  if (name.startsWith('no-') && byName.get(name.slice(3)) === false) return null;
  const found = name ? [...byName.keys()].filter((known) => known.startsWith(name)) : [];
  if (found.length === 1) return found[0];
  throw new Error(`curl has no option ${word}${found.length ? `: it could be --${found.slice(0, 4).join(', --')}` : ''}`);
}

// The options and other words of a command, in their order: [name, value], [name] or [null, word].
export function* options(words) {
  const rest = [...words];
  const valueOf = (option) => {
    if (!rest.length) throw new Error(`${option} needs a value`);
    return rest.shift();
  };
  while (rest.length) {
    const word = rest.shift();
    if (word === '--') {
      yield* rest.map((one) => [null, one]);
      return;
    }
    if (!word.startsWith('-')) yield [null, word];
    else if (word.startsWith('--')) {
      const name = named(word);
      if (name !== null) yield byName.get(name) ? [name, valueOf(word)] : [name];
    } else yield* letters(word, valueOf);
  }
}

// `-sXPOST` is `-s -X POST`.
function* letters(word, valueOf) {
  if (word === '-') throw new Error('curl has no option -');
  for (let i = 1; i < word.length; i += 1) {
    const name = byLetter.get(word[i]);
    if (name === undefined) throw new Error(`curl has no option -${word[i]}`);
    if (byName.get(name)) {
      yield [name, word.slice(i + 1) || valueOf(`-${word[i]}`)];
      return;
    }
    yield [name];
  }
}
