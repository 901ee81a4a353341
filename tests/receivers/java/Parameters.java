import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import jakarta.servlet.annotation.MultipartConfig;
import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.security.MessageDigest;
import java.util.Base64;
import java.util.HexFormat;

/** A servlet as tutorials have it, with the container's own limits: forms by getParameter. It answers with what it has received. */
@MultipartConfig
public class Parameters extends HttpServlet {
    private static final ObjectMapper JSON = new ObjectMapper();

    @Override
    protected void doPost(HttpServletRequest request, HttpServletResponse answer) throws IOException {
        ObjectNode received = JSON.createObjectNode();
        if (request.getContentType().startsWith("application/json")) {
            JsonNode event = JSON.readTree(request.getInputStream());
            note(received, "reg_pic", event.path("reg_pic").asText());
            note(received, "spot_pic", event.path("ext_data").path("spot_pic").asText());
        } else {
            note(received, "reg_pic", request.getParameter("reg_pic"));
            String ext = request.getParameter("ext_data");
            note(received, "spot_pic", ext == null ? null : JSON.readTree(ext).path("spot_pic").asText());
        }
        answer.setContentType("application/json");
        JSON.writeValue(answer.getOutputStream(), JSON.createObjectNode().set("received", received));
    }

    private static void note(ObjectNode received, String name, String text) {
        if (text == null || text.isEmpty()) {
            return;
        }
        byte[] data = Base64.getDecoder().decode(text);
        try {
            String sha256 = HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(data));
            received.putObject(name).put("bytes", data.length).put("sha256", sha256);
        } catch (java.security.NoSuchAlgorithmException impossible) {
            throw new IllegalStateException(impossible);
        }
    }
}
