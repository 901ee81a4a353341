// A receiver as a servlet (Java 17, Tomcat 10.1 or another container of Jakarta EE 9, Jackson). Put this class and Signature in
// WEB-INF/classes, Jackson in WEB-INF/lib. In Tomcat set maxPostSize="33554432" at the Connector, or forms above 2 MiB fail.
// The environment variable STORE names the events' folder.
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import jakarta.servlet.annotation.*; import jakarta.servlet.http.*;
import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.file.*;
import java.security.MessageDigest;
import java.util.*;

@WebServlet("/RealTimeEvent")
@MultipartConfig(maxRequestSize = 32 << 20, fileSizeThreshold = 32 << 20)
public class ReceiveEvents extends HttpServlet {
    static final ObjectMapper JSON = new ObjectMapper();
    static final Path STORE = Path.of(System.getenv("STORE")); // a folder on a durable disk
    static void toDisk(Path path, byte[] data) throws IOException { // without data: fsyncs a folder
        if (data != null) Files.write(path, data, StandardOpenOption.CREATE_NEW);
        try (FileChannel file = FileChannel.open(path)) { file.force(true); }
    }
    static ObjectNode read(HttpServletRequest request) throws Exception {
        byte[] body = Signature.checked(request);
        if (body != null) return (ObjectNode) JSON.readTree(body);
        ObjectNode event = JSON.createObjectNode();
        for (Part part : request.getParts()) event.put(part.getName(), new String(part.getInputStream().readAllBytes(), "UTF-8"));
        event.put("timestamp", Long.parseLong(event.get("timestamp").asText())).put("score", Double.parseDouble(event.get("score").asText()));
        return event.set("ext_data", JSON.readTree(event.get("ext_data").asText()));
    }
    @Override protected void doPost(HttpServletRequest request, HttpServletResponse answer) throws IOException {
        String id = Objects.toString(request.getHeader("X-Event-Id"));
        Map<String, byte[]> files = new LinkedHashMap<>();
        ObjectNode received = JSON.createObjectNode();
        try {
            ObjectNode event = read(request).put("id", id); // read all of it: Tomcat resets a connection with an unread body
            if (!id.matches("[0-9a-f]{32}-[0-9]+(-history)?")) throw new IllegalArgumentException("X-Event-Id is missing or malformed");
            for (ObjectNode holder : List.of(event, (ObjectNode) event.get("ext_data"))) {
                String name = holder == event ? "reg_pic" : "spot_pic";
                byte[] data = Base64.getDecoder().decode(holder.path(name).asText());
                holder.putNull(name);
                if (data.length == 0) continue;
                String sha256 = HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(data));
                received.putObject(name).put("bytes", data.length).put("sha256", sha256);
                holder.set(name, received.get(name).<ObjectNode>deepCopy().put("file", id + "/" + name + ".jpg"));
                files.put(name + ".jpg", data);
            }
            files.put("event.json", JSON.writeValueAsBytes(event));
        } catch (Exception fault) { answer.sendError(fault instanceof SecurityException ? 401 : 400, "not an event: " + fault.getMessage()); return; }
        Path folder = Files.createTempDirectory(STORE, ".new-"); // an IOException (a full disk) is 500: the event is sent again
        try {
            for (var file : files.entrySet()) toDisk(folder.resolve(file.getKey()), file.getValue());
            toDisk(folder, null);
            boolean isNew = folder.toFile().renameTo(STORE.resolve(id).toFile()); // this fails if the event is stored already
            if (!isNew && !Files.exists(STORE.resolve(id).resolve("event.json"))) throw new IOException("cannot rename");
        } finally { // after the rename there is nothing to delete
            for (String file : files.keySet()) Files.deleteIfExists(folder.resolve(file));
            Files.deleteIfExists(folder);
        }
        toDisk(STORE, null); // for a repeated event too: the first try may have ended just before this line
        answer.setContentType("application/json");
        JSON.writeValue(answer.getOutputStream(), JSON.createObjectNode().put("status", "ok").set("received", received));
    }
}
