import jakarta.servlet.MultipartConfigElement;
import jakarta.servlet.Servlet;
import jakarta.servlet.annotation.MultipartConfig;
import org.apache.catalina.startup.Tomcat;

/** Runs a servlet as a Tomcat would that has it as a web application: `java Tomcat10 CLASS PORT [MAX_POST_SIZE]`. */
public class Tomcat10 {
    public static void main(String[] arguments) throws Exception {
        Tomcat tomcat = new Tomcat();
        tomcat.setBaseDir(System.getenv("BASE"));
        tomcat.setPort(Integer.parseInt(arguments[1]));
        var connector = tomcat.getConnector();
        if (arguments.length > 2) {
            connector.setMaxPostSize(Integer.parseInt(arguments[2]));
        }
        Class<?> servlet = Class.forName(arguments[0]);
        var context = tomcat.addContext("", null);
        var wrapper = Tomcat.addServlet(context, "events", (Servlet) servlet.getDeclaredConstructor().newInstance());
        wrapper.setMultipartConfigElement(new MultipartConfigElement(servlet.getAnnotation(MultipartConfig.class)));
        wrapper.addMapping("/RealTimeEvent");
        tomcat.start();
        tomcat.getServer().await();
    }
}
