import jakarta.servlet.http.HttpServletRequest;
import java.io.IOException;
import java.nio.file.*;
import java.security.*;
import java.util.*;
import java.util.regex.*;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/**
 * Checks that a request comes from the box: `X-Signature: t=SECONDS,v1=HEX`, HMAC-SHA256 of SECONDS.BODY with the key in
 * SIGN_KEY_FILE, at most 5 minutes old. Without SIGN_KEY_FILE every request is accepted. A container that parses a form does not
 * give out its bytes, so a box that signs must send JSON.
 */
final class Signature {
    private static final Pattern WRITTEN = Pattern.compile("t=([0-9]{1,12}),v1=([0-9a-f]{64})");

    /** The body; null for a form. */
    static byte[] checked(HttpServletRequest request) throws IOException, GeneralSecurityException {
        boolean isJson = request.getContentType().startsWith("application/json");
        byte[] body = isJson ? request.getInputStream().readAllBytes() : null;
        String file = System.getenv("SIGN_KEY_FILE");
        if (file == null) return body;
        Matcher written = WRITTEN.matcher(Objects.toString(request.getHeader("X-Signature")));
        if (body == null || !written.matches()) throw new SecurityException("there is no X-Signature, or it is a form's");
        byte[] key = Files.readAllBytes(Path.of(file));
        int length = key.length > 0 && key[key.length - 1] == '\n' ? key.length - 1 : key.length;
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(key, 0, length, "HmacSHA256"));
        mac.update((written.group(1) + ".").getBytes());
        boolean isRight = MessageDigest.isEqual(mac.doFinal(body), HexFormat.of().parseHex(written.group(2)));
        long age = System.currentTimeMillis() / 1000 - Long.parseLong(written.group(1));
        if (!isRight || Math.abs(age) >= 300) throw new SecurityException("the signature is wrong or old");
        return body;
    }
}
