import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.table.api.TableResult;

/** Runs the statements of a file, which are separated by semicolons at line ends, on a cluster. */
public final class SqlRunner {
    public static void main(String[] arguments) throws Exception {
        TableEnvironment tables =
                TableEnvironment.create(EnvironmentSettings.newInstance().inStreamingMode().build());
        for (String statement : Files.readString(Path.of(arguments[0])).split(";\\s*\n")) {
            if (!statement.isBlank()) {
                TableResult result = tables.executeSql(statement);
                if (statement.stripLeading().startsWith("INSERT")) {
                    result.await();
                }
            }
        }
    }
}
